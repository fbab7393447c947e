//! Learning to learn: episodes, MAML, prototypical networks, their training and evaluation.
#![forbid(unsafe_code)]
