//! Images, functions, tasks and episodes; an embedded world of glyphs and digits.
#![forbid(unsafe_code)]
