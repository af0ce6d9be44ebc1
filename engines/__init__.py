"""Export: fuse, convert, quantise, prove and measure; the way from a checkpoint to the files that the runtime takes."""
