//! A metric over steps, stored as values and stretches of consecutive steps.

/// A metric over ascending steps. Consecutive steps are stored as one stretch to save memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// The first step of each stretch and the index of its first value. Stretches are never
    /// adjacent.
    stretches: Vec<(u64, usize)>,
    values: Vec<f64>,
}

impl Series {
    pub fn steps(&self) -> impl Iterator<Item = u64> + '_ {
        self.stretches
            .iter()
            .enumerate()
            .flat_map(|(index, (first, start))| {
                let length = (self.end_of(index) - start) as u64;
                *first..*first + length
            })
    }

    /// Values; NaN if not finite.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    pub fn points(&self) -> impl Iterator<Item = (u64, f64)> + '_ {
        self.steps().zip(self.values.iter().copied())
    }

    /// Steps and values from step `first` to `last`, inclusive; skips earlier steps without
    /// iterating.
    pub fn between(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, f64)> + '_ {
        let start = self.place(first).unwrap_or_else(|place| place);
        let stretch = self
            .stretches
            .partition_point(|(_, begin)| *begin <= start)
            .saturating_sub(1);
        let stretches = self.stretches.iter().enumerate().skip(stretch);
        stretches
            .flat_map(move |(index, (step, begin))| {
                let from = (*begin).max(start);
                let values = self.values[from..self.end_of(index).max(from)]
                    .iter()
                    .copied();
                // Computed from 0, since a step may be `u64::MAX`.
                let first = *step + (from - begin) as u64;
                values
                    .enumerate()
                    .map(move |(offset, value)| (first + offset as u64, value))
            })
            .take_while(move |(step, _)| *step <= last)
    }

    pub fn extent(&self) -> Option<(u64, u64)> {
        let (first, _) = self.stretches.first()?;
        let (step, start) = self.stretches.last()?;
        Some((*first, step + (self.values.len() - start) as u64 - 1))
    }

    pub fn last(&self) -> Option<f64> {
        self.values.last().copied()
    }

    pub fn at(&self, step: u64) -> Option<f64> {
        self.place(step).ok().map(|place| self.values[place])
    }

    pub(super) fn set(&mut self, step: u64, value: f64) {
        match self.place(step) {
            Ok(place) => self.values[place] = value,
            Err(place) if place == self.values.len() => self.push(step, value),
            Err(place) => {
                // Only a log with lost lines has a step between stretches.
                let mut points: Vec<(u64, f64)> = self.points().collect();
                points.insert(place, (step, value));
                *self = points.into_iter().collect();
            }
        }
    }

    pub(super) fn forget_after(&mut self, step: u64) {
        let keep = self
            .place(step)
            .map_or_else(|place| place, |place| place + 1);
        self.values.truncate(keep);
        self.stretches.retain(|(_, start)| *start < keep);
    }

    pub(super) fn parts(&self) -> (&[(u64, usize)], &[f64]) {
        (&self.stretches, &self.values)
    }

    pub(super) fn from_parts(stretches: Vec<(u64, usize)>, values: Vec<f64>) -> Option<Self> {
        let starts_right = stretches
            .first()
            .map_or(values.is_empty(), |(_, start)| *start == 0);
        let ascending = stretches.windows(2).all(|pair| {
            let ((first, start), (next, end)) = (pair[0], pair[1]);
            end > start
                && first
                    .checked_add((end - start) as u64)
                    .is_some_and(|after| after < next)
        });
        let inside = stretches.last().is_none_or(|(first, start)| {
            *start < values.len() && first.checked_add(values.len() as u64).is_some()
        });
        (starts_right && ascending && inside).then_some(Self { stretches, values })
    }

    fn push(&mut self, step: u64, value: f64) {
        let touches = self
            .stretches
            .last()
            .is_some_and(|(first, start)| first + (self.values.len() - start) as u64 == step);
        if !touches {
            self.stretches.push((step, self.values.len()));
        }
        self.values.push(value);
    }

    fn end_of(&self, stretch: usize) -> usize {
        self.stretches
            .get(stretch + 1)
            .map_or(self.values.len(), |(_, start)| *start)
    }

    /// The index of the value of `step`, or where it would be inserted.
    fn place(&self, step: u64) -> Result<usize, usize> {
        let after = self.stretches.partition_point(|(first, _)| *first <= step);
        let Some(index) = after.checked_sub(1) else {
            return Err(0);
        };
        let ((first, start), end) = (self.stretches[index], self.end_of(index));
        match usize::try_from(step - first) {
            Ok(beyond) if beyond < end - start => Ok(start + beyond),
            _ => Err(end),
        }
    }
}

impl FromIterator<(u64, f64)> for Series {
    /// Steps must be ascending.
    fn from_iter<I: IntoIterator<Item = (u64, f64)>>(points: I) -> Self {
        let mut series = Self::default();
        for (step, value) in points {
            series.push(step, value);
        }
        series
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Compares with a sorted map, for steps in any order.
    #[test]
    fn as_a_map_would() {
        let mut state = 7u64;
        let mut random = move |most: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % most
        };
        for round in 0..200 {
            let (mut series, mut map) = (Series::default(), std::collections::BTreeMap::new());
            for _ in 0..random(60) {
                let step = random(40);
                if random(8) == 0 {
                    series.forget_after(step);
                    map.retain(|found, _| *found <= step);
                } else {
                    series.set(step, round as f64 + step as f64);
                    map.insert(step, round as f64 + step as f64);
                }
            }
            assert_eq!(
                series.points().collect::<Vec<_>>(),
                map.iter()
                    .map(|(step, value)| (*step, *value))
                    .collect::<Vec<_>>()
            );
            assert!((0..41).all(|step| series.at(step) == map.get(&step).copied()));
            let (from, to) = (random(45), random(45));
            let inside = map
                .iter()
                .filter(|(step, _)| (from..=to).contains(*step))
                .map(|(step, value)| (*step, *value));
            assert_eq!(
                series.between(from, to).collect::<Vec<_>>(),
                inside.collect::<Vec<_>>(),
                "{from} to {to}"
            );
            let ends = map
                .first_key_value()
                .zip(map.last_key_value())
                .map(|((first, _), (last, _))| (*first, *last));
            assert_eq!(series.extent(), ends);
            assert_eq!(
                series,
                map.into_iter().collect(),
                "one shape for one content"
            );
            let (stretches, values) = series.parts();
            assert_eq!(
                Series::from_parts(stretches.to_vec(), values.to_vec()).unwrap(),
                series
            );
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let check = |stretches: &[(u64, usize)], values: usize, fits: bool| {
            assert_eq!(
                Series::from_parts(stretches.to_vec(), vec![0.0; values]).is_some(),
                fits,
                "{stretches:?} {values}"
            );
        };
        check(&[], 0, true);
        check(&[], 1, false);
        check(&[(5, 0)], 3, true);
        check(&[(5, 1)], 3, false);
        check(&[(5, 0)], 0, false);
        check(&[(5, 0), (9, 2)], 3, true);
        check(&[(5, 0), (7, 2)], 3, false);
        check(&[(5, 0), (4, 2)], 3, false);
        check(&[(5, 0), (9, 4)], 3, false);
        check(&[(u64::MAX, 0)], 3, false);
    }
}
