"""Store private keys, choose the keys of a login, and renew them."""
