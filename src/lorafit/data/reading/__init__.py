"""From a file of any kind to parts of a table: first decide how it is written, then read it plainly."""
