//! The functions that Envoy calls. It looks all of them up by name when it loads the module, those as well that it
//! never calls here, and refuses a module that lacks one.

use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::abi::{Buffer, Current, EnvoyFilter, VERSION};
use crate::body_hash::BodyHash;

/// This module's object for the filter of one request.
type ModuleFilter = *const c_void;

/// Envoy is to go on, with headers, body and trailers alike.
const CONTINUE: u32 = 0;

/// What stands for this module's configuration, which it has none of: anything but null.
static CONFIGURATION: u8 = 0;

/// Runs what a callback is for. Nothing in it is known to panic; if something did, its request would get no
/// hash, and Envoy go on. (Where panics abort, Envoy ends: this is built with a profile in which they unwind.)
fn go_on(
    filter: EnvoyFilter,
    module: ModuleFilter,
    run: impl FnOnce(&mut BodyHash, &Current<'_>),
) -> u32 {
    // SAFETY: Envoy hands back what `envoy_dynamic_module_on_http_filter_new` gave it, calls back for a request one
    // at a time, and not after it has called `envoy_dynamic_module_on_http_filter_destroy`.
    let body = unsafe { module.cast::<BodyHash>().cast_mut().as_mut() };
    // SAFETY: `filter` is that of this callback.
    let request = unsafe { Current::new(filter) };
    if let Some(body) = body
        && catch_unwind(AssertUnwindSafe(|| run(body, &request))).is_err()
    {
        *body = BodyHash::Over;
    }
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    VERSION.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    _envoy: *mut c_void,
    _name: Buffer,
    _config: Buffer,
) -> *const c_void {
    (&raw const CONFIGURATION).cast()
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(_config: *const c_void) {}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_new(
    _name: Buffer,
    _config: Buffer,
) -> *const c_void {
    (&raw const CONFIGURATION).cast()
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_destroy(_config: *const c_void) {
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_new(
    _config: *const c_void,
    _filter: EnvoyFilter,
) -> ModuleFilter {
    Box::into_raw(Box::<BodyHash>::default()).cast_const().cast()
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_destroy(module: ModuleFilter) {
    if !module.is_null() {
        // SAFETY: it comes from `Box::into_raw`, and Envoy gives each back once.
        drop(unsafe { Box::from_raw(module.cast::<BodyHash>().cast_mut()) });
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    filter: EnvoyFilter,
    module: ModuleFilter,
    end_of_stream: bool,
) -> u32 {
    go_on(filter, module, |body, request| body.begin(request, end_of_stream))
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_request_body(
    filter: EnvoyFilter,
    module: ModuleFilter,
    end_of_stream: bool,
) -> u32 {
    go_on(filter, module, |body, request| body.take(request, end_of_stream))
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_request_trailers(
    filter: EnvoyFilter,
    module: ModuleFilter,
) -> u32 {
    go_on(filter, module, |body, request| body.end(request))
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_response_headers(
    _filter: EnvoyFilter,
    _module: ModuleFilter,
    _end_of_stream: bool,
) -> u32 {
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_response_body(
    _filter: EnvoyFilter,
    _module: ModuleFilter,
    _end_of_stream: bool,
) -> u32 {
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_response_trailers(
    _filter: EnvoyFilter,
    _module: ModuleFilter,
) -> u32 {
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_stream_complete(
    _filter: EnvoyFilter,
    _module: ModuleFilter,
) {
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_local_reply(
    _filter: EnvoyFilter,
    _module: ModuleFilter,
    _status: u32,
    _details: Buffer,
    _reset_imminent: bool,
) -> u32 {
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(
    _filter: EnvoyFilter,
    _module: ModuleFilter,
) {
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(
    _filter: EnvoyFilter,
    _module: ModuleFilter,
) {
}

// What belongs to calls that a module makes itself, and to events that it plans. This one does neither.

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_callout_done(
    _filter: EnvoyFilter,
    _module: ModuleFilter,
    _callout: u64,
    _result: u32,
    _headers: *mut c_void,
    _headers_size: usize,
    _body: *mut Buffer,
    _body_size: usize,
) {
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_headers(
    _filter: EnvoyFilter,
    _module: ModuleFilter,
    _stream: u64,
    _headers: *mut c_void,
    _headers_size: usize,
    _end_of_stream: bool,
) {
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_data(
    _filter: EnvoyFilter,
    _module: ModuleFilter,
    _stream: u64,
    _data: *const Buffer,
    _data_size: usize,
    _end_of_stream: bool,
) {
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_trailers(
    _filter: EnvoyFilter,
    _module: ModuleFilter,
    _stream: u64,
    _trailers: *mut c_void,
    _trailers_size: usize,
) {
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_complete(
    _filter: EnvoyFilter,
    _module: ModuleFilter,
    _stream: u64,
) {
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_reset(
    _filter: EnvoyFilter,
    _module: ModuleFilter,
    _stream: u64,
    _reason: u32,
) {
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_scheduled(
    _filter: EnvoyFilter,
    _module: ModuleFilter,
    _event: u64,
) {
}
