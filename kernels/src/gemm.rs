//! Matrix products of strided views into slices, for attention inside a head.

use super::Real;

/// A matrix in a slice: element (i, j) is at `offset + i * row_stride + j * column_stride`.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) offset: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl View {
    /// Contiguous rows, `row_stride` apart.
    pub(super) fn rows(offset: usize, rows: usize, columns: usize, row_stride: usize) -> Self {
        Self {
            offset,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    fn end(&self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        self.offset
            + (self.rows - 1) * self.row_stride
            + (self.columns - 1) * self.column_stride
            + 1
    }
}

/// `target = keep * target + scale * left x right`; with `keep` false the target is not read.
///
/// # Panics
/// A view that leaves its slice, or mismatched sizes: a bug, never caused by input.
pub(super) fn multiply<T: Real>(
    target: (&mut [T], View),
    left: (&[T], View),
    right: (&[T], View),
    scale: T,
    keep: bool,
) {
    let ((c, c_view), (a, a_view), (b, b_view)) = (target, left, right);
    assert_eq!(
        (c_view.rows, c_view.columns, a_view.columns),
        (a_view.rows, b_view.columns, b_view.rows),
        "matmul sizes"
    );
    assert!(
        c_view.end() <= c.len() && a_view.end() <= a.len() && b_view.end() <= b.len(),
        "a matrix view leaves its slice"
    );
    if c_view.rows == 0 || c_view.columns == 0 {
        return;
    }
    // SAFETY: the three views were just checked to lie inside their slices, and `c` is borrowed mutably, so it overlaps
    // neither `a` nor `b`.
    unsafe {
        gemm::gemm(
            c_view.rows,
            c_view.columns,
            a_view.columns,
            c.as_mut_ptr().add(c_view.offset),
            c_view.column_stride as isize,
            c_view.row_stride as isize,
            keep,
            a.as_ptr().add(a_view.offset),
            a_view.column_stride as isize,
            a_view.row_stride as isize,
            b.as_ptr().add(b_view.offset),
            b_view.column_stride as isize,
            b_view.row_stride as isize,
            T::one(),
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
