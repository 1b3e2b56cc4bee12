"""The words: what a person declares and what happens. They know no database, no network, no file system."""
