"""Where private keys live, what is known of them, and how they are renewed."""
