"""How good a model's masks are: clicks and automatic masks against known truth."""
