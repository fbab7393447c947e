//! metaforge: meta-learning and generative adversarial networks on a plain CPU.
#![forbid(unsafe_code)]
