"""The paper's experiments: settings, runs and their storage, figures, tables and the ledger of its claims."""
