//! The language of Go's `text/template`: lexer, parser and evaluator.
//!
//! `lex` turns a text into tokens, `parse` tokens into trees and `evaluate` runs trees. What a template may call
//! is in [`super::functions`].

pub(super) mod evaluate;
pub(super) mod lex;
pub(super) mod parse;
