"""What turns pixels and prompts into masks: the protocol every segmenter follows, and each family in a folder of its own."""
