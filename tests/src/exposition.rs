use std::collections::HashSet;

/// Fails the test if a scrape of `/metrics`, in either format, has a series twice: Prometheus would refuse all of it.
#[track_caller]
pub fn assert_each_series_is_once(scraped: &str) {
    let mut seen = HashSet::new();
    for line in scraped.lines().filter(|line| !line.starts_with('#')) {
        // An exemplar may follow the value.
        let sample = line
            .split_once(" # ")
            .map_or(line, |(sample, _exemplar)| sample);
        let (series, _value) = sample.rsplit_once(' ').expect("a series and its value");
        assert!(seen.insert(series), "{series} is there twice in {scraped}");
    }
}
