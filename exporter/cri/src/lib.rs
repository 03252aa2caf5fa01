//! What netsonde asks of a container runtime: gRPC over a Unix socket, and the messages of CRI v1 that it reads.
//!
//! The messages are written by hand with `prost`: the published bindings need `protoc` to be built, and netsonde reads
//! seven of about two hundred messages. Field numbers are those of cri-api's `pkg/apis/runtime/v1/api.proto`; fields
//! that nobody reads are left out, and `prost` passes over them.

#![forbid(unsafe_code)]

pub mod containerd;
#[cfg(test)]
mod faults;
pub mod grpc;
pub mod v1;

pub use grpc::{Channel, Code, Error, Stream};
