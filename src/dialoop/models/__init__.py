"""Models: load Hugging Face directories and PEFT adapters, export merged directories and GGUF files."""
