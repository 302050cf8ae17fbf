"""How quick the shell feels: start-up of commands, and what a click costs beyond the decoder itself."""
