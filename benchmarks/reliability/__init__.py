"""What is lost, torn, doubled or hung when processes are killed, lines fail and input lies; see ``docs/reliability.md``."""
