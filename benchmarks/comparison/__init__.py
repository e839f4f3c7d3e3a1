"""What benchmarks share that put us beside peers. What is compressed, and how, is said in each of their folders."""
