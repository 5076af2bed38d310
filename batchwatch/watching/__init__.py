"""Ask LlamaCloud what became of its batches, and hand on what was seen."""
