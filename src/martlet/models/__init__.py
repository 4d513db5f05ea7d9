"""One readable file a family of models, and the registry that finds them."""
