"""The command line: one file per command or group, thin; data to stdout, everything else to stderr."""
