//! A deterministic pairwise cover: from the full product of some factors, a small selection in
//! which every pair of values that occurs in any permitted row occurs.

use std::collections::BTreeSet;

/// A row: for each factor the index of its value.
pub type Row = Vec<usize>;

/// Every row of the product that `permitted` accepts, in order.
pub fn product(sizes: &[usize], permitted: impl Fn(&Row) -> bool) -> Vec<Row> {
    let mut rows: Vec<Row> = vec![Vec::new()];
    for &size in sizes {
        let extend = |row: &Row| -> Vec<Row> {
            (0..size).map(|value| [row.as_slice(), &[value]].concat()).collect()
        };
        rows = rows.iter().flat_map(extend).collect();
    }
    rows.retain(permitted);
    rows
}

/// Every pair of (factor, value) that the rows contain.
pub fn pairs(rows: &[Row]) -> BTreeSet<[usize; 4]> {
    rows.iter().flat_map(pairs_of).collect()
}

fn pairs_of(row: &Row) -> Vec<[usize; 4]> {
    let mut pairs = Vec::new();
    for first in 0..row.len() {
        for second in first + 1..row.len() {
            pairs.push([first, row[first], second, row[second]]);
        }
    }
    pairs
}

/// Greedy: always the row that covers the most pairs that are not covered yet, the first of equals.
pub fn cover(rows: &[Row]) -> Vec<Row> {
    let mut missing = pairs(rows);
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let gain = |row: &Row| pairs_of(row).iter().filter(|pair| missing.contains(*pair)).count();
        let best = rows.iter().rev().max_by_key(|row| gain(row)).expect("rows").clone();
        for pair in pairs_of(&best) {
            missing.remove(&pair);
        }
        chosen.push(best);
    }
    chosen
}

#[test]
fn a_cover_has_every_pair_and_is_small() {
    let rows = product(&[5, 7, 4, 4, 2], |row| !(row[1] == 2 && row[0] < 3));
    let chosen = cover(&rows);
    assert_eq!(pairs(&chosen), pairs(&rows));
    assert!(chosen.len() >= 35 - 3 && chosen.len() <= 60, "{} rows", chosen.len());
    assert_eq!(chosen, cover(&rows), "the same every time");
}
