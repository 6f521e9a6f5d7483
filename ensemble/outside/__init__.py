"""What comes from outside: names, paths and environment variables, each read and shown in one place. Imports nothing heavy."""
