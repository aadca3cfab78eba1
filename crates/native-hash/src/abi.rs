//! What is used of the interface of Envoy 1.40 (`source/extensions/dynamic_modules/abi/abi.h`), and a safe way to
//! call Envoy.

use std::ffi::{c_char, c_void};
use std::marker::PhantomData;

use crate::body_hash::Request;

/// The version of the interface, with the zero at its end that C wants.
pub const VERSION: &std::ffi::CStr = c"v0.2.0";

/// `envoy_dynamic_module_type_http_filter_envoy_ptr`: Envoy's object for the filter of one request.
pub type EnvoyFilter = *mut c_void;

/// `envoy_dynamic_module_type_envoy_buffer`, bytes that Envoy holds; and `envoy_dynamic_module_type_module_buffer`,
/// bytes that this module holds. They look alike.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Buffer {
    pointer: *const c_char,
    length: usize,
}

impl Buffer {
    const EMPTY: Self = Self { pointer: std::ptr::null(), length: 0 };

    /// The bytes, for as long as they are borrowed.
    fn of(bytes: &[u8]) -> Self {
        Self { pointer: bytes.as_ptr().cast(), length: bytes.len() }
    }
}

/// `envoy_dynamic_module_type_http_header_type_RequestHeader`
const REQUEST_HEADER: u32 = 0;

/// `envoy_dynamic_module_type_http_body_type_ReceivedRequestBody`
const RECEIVED_REQUEST_BODY: u32 = 0;

unsafe extern "C" {
    fn envoy_dynamic_module_callback_http_has_filter_state(
        filter: EnvoyFilter,
        key: Buffer,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_set_filter_state_bytes(
        filter: EnvoyFilter,
        key: Buffer,
        value: Buffer,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_get_header(
        filter: EnvoyFilter,
        header_type: u32,
        key: Buffer,
        result: *mut Buffer,
        index: usize,
        count: *mut usize,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_get_body_chunks_size(
        filter: EnvoyFilter,
        body_type: u32,
    ) -> usize;
    fn envoy_dynamic_module_callback_http_get_body_chunks(
        filter: EnvoyFilter,
        body_type: u32,
        result: *mut Buffer,
    ) -> bool;
}

/// The request of the callback that is running.
pub struct Current<'c> {
    filter: EnvoyFilter,
    callback: PhantomData<&'c ()>,
}

impl Current<'_> {
    /// # Safety
    ///
    /// `filter` is what Envoy has called back with, and the result does not outlive the callback.
    pub unsafe fn new(filter: EnvoyFilter) -> Self {
        Self { filter, callback: PhantomData }
    }
}

impl Request for Current<'_> {
    fn has_state(&self, key: &str) -> bool {
        // SAFETY: Envoy's own pointer, and a key that outlives the call.
        unsafe {
            envoy_dynamic_module_callback_http_has_filter_state(
                self.filter,
                Buffer::of(key.as_bytes()),
            )
        }
    }

    fn set_state(&self, key: &str, value: &[u8]) {
        // SAFETY: Envoy's own pointer, and bytes that outlive the call; Envoy copies them.
        unsafe {
            envoy_dynamic_module_callback_http_set_filter_state_bytes(
                self.filter,
                Buffer::of(key.as_bytes()),
                Buffer::of(value),
            );
        }
    }

    fn announced_length(&self) -> Option<u64> {
        let mut value = Buffer::EMPTY;
        // SAFETY: Envoy's own pointer, a key and a place for the result that outlive the call; Envoy takes a null
        // where the number of values is not wanted.
        let found = unsafe {
            envoy_dynamic_module_callback_http_get_header(
                self.filter,
                REQUEST_HEADER,
                Buffer::of(b"content-length"),
                &mut value,
                0,
                std::ptr::null_mut(),
            )
        };
        if !found {
            return None;
        }
        // SAFETY: the header is Envoy's, and stays while nothing of Envoy's is called.
        let text = unsafe { bytes_of(&value) };
        std::str::from_utf8(text).ok()?.parse().ok()
    }

    fn each_piece(&self, take: &mut dyn FnMut(&[u8])) {
        // SAFETY: Envoy's own pointer.
        let count = unsafe {
            envoy_dynamic_module_callback_http_get_body_chunks_size(
                self.filter,
                RECEIVED_REQUEST_BODY,
            )
        };
        let mut pieces = vec![Buffer::EMPTY; count];
        // SAFETY: Envoy's own pointer, and room for as many pieces as Envoy has just said that there are.
        let are_there = count > 0
            && unsafe {
                envoy_dynamic_module_callback_http_get_body_chunks(
                    self.filter,
                    RECEIVED_REQUEST_BODY,
                    pieces.as_mut_ptr(),
                )
            };
        if are_there {
            for piece in &pieces {
                // SAFETY: the body is Envoy's, and stays as it is while nothing of Envoy's is called.
                take(unsafe { bytes_of(piece) });
            }
        }
    }
}

/// # Safety
///
/// Envoy has filled in the buffer, and its bytes stay as they are while the result is used.
unsafe fn bytes_of(buffer: &Buffer) -> &[u8] {
    if buffer.pointer.is_null() || buffer.length == 0 {
        return &[];
    }
    // SAFETY: as this function's own.
    unsafe { std::slice::from_raw_parts(buffer.pointer.cast(), buffer.length) }
}
