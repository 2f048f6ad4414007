"""The algorithms of the SFTP facility (§2.1): the guide's and no others, the fastest safe ones first."""

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
"""For host keys and for signatures alike; SHA-1 (``ssh-rsa``) comes last."""
