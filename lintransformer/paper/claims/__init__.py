"""The ledger of the paper's claims 1 to 19: statistics over seeds, intervals, and verdicts from them."""
from lintransformer.paper.claims.registry import CLAIMS, Claim, claim_cells, ledger

__all__ = ["CLAIMS", "Claim", "claim_cells", "ledger"]
