"""How quantities become amounts: one pure module a pricing model, listed in registry.py."""
