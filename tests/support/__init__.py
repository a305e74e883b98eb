"""What several tests share: processes that end, ports nobody else has, leaks found, corpora located."""
