"""The commands of `cli.py` other than running a recipe: judge a file, decide on a table, export pairs."""
