//! Where meta-learning and GANs meet: few-shot generation.
#![forbid(unsafe_code)]
