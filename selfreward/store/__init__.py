"""The run folder: stages that run once, in shards; atomic writes; hashes; the manifest; the lock."""

from selfreward.store.run_folder import Store
