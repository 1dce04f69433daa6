"""Operations with fast implementations, one folder each: the reference defines it, the kernels must agree with it."""
