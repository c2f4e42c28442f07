"""Programs built on worldsim: its command line."""
