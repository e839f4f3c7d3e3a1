"""Problems: what the `type` of a problem document leads to. The catalogue, for people too, is `catalogue.md`."""
