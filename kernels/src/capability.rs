//! What the kernels may use of a GPU. With `GRPO_TUI_CAPABILITY=80` they are those for another card,
//! within its limits: the driver compiles their PTX for this one, so that they are tested without
//! such a card.

/// Names another card's compute capability, in digits.
const VARIABLE: &str = "GRPO_TUI_CAPABILITY";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capability {
    /// Of the kernels; 80 for 8.0.
    pub(super) number: u32,
    /// Whether they are for another card.
    is_other: bool,
    /// Maximum shared memory of a block.
    pub(super) shared_bytes: usize,
}

impl Capability {
    /// `card`: its compute capability; `asked`: of the other card.
    fn new(
        card: u32,
        shared_bytes: usize,
        lowest: &str,
        asked: Option<&str>,
    ) -> Result<Self, String> {
        let has = dotted(card);
        let lowest_number = lowest.parse().unwrap_or(80);
        if card < 80 {
            return Err(format!(
                "its compute capability is {has}, and the kernels need 8.0 or later (A100, RTX 30 and newer): choose another GPU, or compute with --cpu"
            ));
        }
        if card < lowest_number {
            return Err(format!(
                "its compute capability is {has}, and this program was built for {} and later: build with CUDA_COMPUTE_CAP=80, or compute with --cpu",
                dotted(lowest_number)
            ));
        }
        let Some(asked) = asked else {
            return Ok(Self {
                number: card,
                is_other: false,
                shared_bytes,
            });
        };
        let (number, most) = match asked.parse() {
            Ok(number @ (80 | 87)) => (number, 163 << 10),
            Ok(number @ (86 | 89 | 120 | 121)) => (number, 99 << 10),
            Ok(number @ (90 | 100 | 103)) => (number, 227 << 10),
            _ => {
                return Err(format!(
                    "{VARIABLE} is {asked}: set it to 80, 86, 87, 89, 90, 100, 103, 120 or 121, or unset it"
                ));
            }
        };
        let other = Self {
            number,
            is_other: true,
            shared_bytes: shared_bytes.min(most),
        };
        let runs = match other.image() {
            0 => number >= lowest_number,
            1 => card / 10 == 9,
            _ => card >= 90,
        };
        if !runs {
            return Err(format!(
                "{VARIABLE} is {asked}, and this program has no kernels for {} that run on a GPU of {has}: unset it, or build with CUDA_COMPUTE_CAP=80",
                dotted(number)
            ));
        }
        Ok(other)
    }

    /// Which of a module's images the kernels are in.
    pub(super) fn image(self) -> usize {
        match self.number {
            ..90 => 0,
            90..100 => 1,
            _ => 2,
        }
    }

    /// What a record says of kernels for another card.
    pub(super) fn note(self) -> String {
        match self.is_other {
            true => format!(" with kernels for {}", dotted(self.number)),
            false => String::new(),
        }
    }

    /// Whether blocks form clusters, and kernels may be launched before their predecessor ends.
    pub(super) fn has_clusters(self) -> bool {
        self.number >= 90
    }

    /// Whether four warps multiply together (wgmma): Hopper.
    pub(super) fn has_warpgroups(self) -> bool {
        self.image() == 1
    }
}

/// `8.0` for 80.
pub(super) fn dotted(number: u32) -> String {
    format!("{}.{}", number / 10, number % 10)
}

#[cfg(feature = "cuda")]
pub(super) use gpu::capability;

#[cfg(feature = "cuda")]
mod gpu {
    use std::sync::OnceLock;

    use candle_core::cuda_backend::cudarc::driver::sys::CUdevice_attribute_enum;
    use candle_core::{CudaDevice, Error, Result};

    use super::{Capability, VARIABLE};
    use crate::cuda_errors::failed;

    /// The lowest compute capability that this build has kernels for: 80, or 90.
    const LOWEST: &str = env!("GRPO_TUI_LOWEST_CAPABILITY");
    /// By number of the GPU: the driver is asked once.
    static KNOWN: [OnceLock<Capability>; 64] = [const { OnceLock::new() }; 64];

    /// # Errors
    /// A GPU that has no kernels here.
    pub(crate) fn capability(device: &CudaDevice) -> Result<Capability> {
        let stream = device.cuda_stream();
        let context = stream.context();
        let known = KNOWN.get(context.ordinal());
        if let Some(found) = known.and_then(OnceLock::get) {
            return Ok(*found);
        }
        let ask = |attribute| {
            let number = context.attribute(attribute);
            number.map_err(|error| failed("capability", error))
        };
        let major = ask(CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = ask(CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let shared_bytes =
            ask(CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let asked = std::env::var(VARIABLE).ok();
        let card = (10 * major + minor) as u32;
        let found = Capability::new(card, shared_bytes as usize, LOWEST, asked.as_deref())
            .map_err(Error::Msg)?;
        Ok(known.map_or(found, |known| *known.get_or_init(|| found)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_card_has_its_kernels_and_those_asked_for() {
        let check = |card, asked, expected: (usize, usize), note: &str| {
            let found = Capability::new(card, 227 << 10, "80", asked).unwrap();
            let (image, kib) = (found.image(), found.shared_bytes >> 10);
            assert_eq!((image, kib), expected, "{card} {asked:?}");
            assert_eq!(found.note(), note);
            assert_eq!(found.has_clusters(), image > 0);
            assert_eq!(found.has_warpgroups(), image == 1);
        };
        check(80, None, (0, 227), "");
        check(89, None, (0, 227), "");
        check(90, None, (1, 227), "");
        check(120, None, (2, 227), "");
        check(90, Some("80"), (0, 163), " with kernels for 8.0");
        check(90, Some("89"), (0, 99), " with kernels for 8.9");
        check(90, Some("90"), (1, 227), " with kernels for 9.0");
        check(90, Some("100"), (2, 227), " with kernels for 10.0");
        check(90, Some("120"), (2, 99), " with kernels for 12.0");
    }

    #[test]
    fn a_card_without_kernels_is_refused() {
        let check = |card, lowest, asked, expected: &str| {
            let message = Capability::new(card, 99 << 10, lowest, asked).unwrap_err();
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        };
        check(75, "80", None, "7.5, and the kernels need 8.0 or later");
        check(
            86,
            "90",
            None,
            "built for 9.0 and later: build with CUDA_COMPUTE_CAP=80",
        );
        check(
            86,
            "80",
            Some("8.6"),
            "GRPO_TUI_CAPABILITY is 8.6: set it to 80",
        );
        check(
            86,
            "80",
            Some("90"),
            "no kernels for 9.0 that run on a GPU of 8.6",
        );
        check(
            120,
            "80",
            Some("90"),
            "no kernels for 9.0 that run on a GPU of 12.0",
        );
        check(
            89,
            "80",
            Some("100"),
            "no kernels for 10.0 that run on a GPU of 8.9",
        );
        check(
            90,
            "90",
            Some("80"),
            "no kernels for 8.0 that run on a GPU of 9.0",
        );
    }
}
