//! Sampling: a request from Python objects, an answer to arrays.

mod answer;
mod request;

pub(crate) use answer::Sampled;
pub(crate) use request::SampleCall;
