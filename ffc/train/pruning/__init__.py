"""What a torch model can spare: importance by gradients, plans, masks and scales."""
