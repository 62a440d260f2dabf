"""Which pixels and which bands decide: heat maps of patches, the importance of bands, and a test of the heat maps."""
