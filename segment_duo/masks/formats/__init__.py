"""One module per file format that other programs read or write; each turns sets into bytes and bytes into masks. None touches the disk."""
