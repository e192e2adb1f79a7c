//! L1: the query language (parser → resolver → SQL or evaluator).
