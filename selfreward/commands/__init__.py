"""What the commands of `cli.py` do beside running a recipe: judge a file, decide on a table, export pairs."""
