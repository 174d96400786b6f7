//! Devices: who computes on which, GPUs and what they cost.

pub(super) mod device_slots;
mod gpu;
mod gpu_price;

pub use device_slots::{Device, Holder, SLOTS, Slot, Waiting, holder, queue_length, slots_folder};
pub use gpu::{Gpu, GpuProcess};
pub use gpu_price::{GPU_PRICE_KEY, GPU_PRICE_RULE, configured_gpu_price, is_price, toml_price};
