"""The landscape along a training path: Hessians, condition numbers, smoothness and gradient noise."""
