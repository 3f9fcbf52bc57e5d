"""Several servers that answer under one address: what they tell each other."""
