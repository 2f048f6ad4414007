"""The algorithms of the guide (§2.1), in order of preference. No others are ever offered."""

KEY_EXCHANGE = (
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group-exchange-sha256",
)
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
MACS = ("hmac-sha2-256", "hmac-sha2-512-96")
PUBLIC_KEY = ("rsa-sha2-256", "rsa-sha2-512", "ssh-rsa")
"""Used for host keys and for signatures. ``ssh-rsa`` comes last because it signs with SHA-1."""
