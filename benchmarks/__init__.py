"""Measure the provider beside sftp, lftp, rclone and the stock SFTP hooks; run it with `make bench`."""
