//! The learning rate against the released scheduler's.

use serde_json::Value;
use training::schedule::WarmupCosine;

#[test]
fn should_follow_the_released_schedule_at_every_step() {
    let path = fixtures::fixture("lr_schedule.json");
    let fixture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let number = |key: &str| fixture[key].as_f64().unwrap();
    let schedule = WarmupCosine {
        peak: number("base_lr"),
        last: number("end_lr"),
        warmup: fixture["warmup_steps"].as_u64().unwrap(),
        steps: fixture["total_steps"].as_u64().unwrap(),
    };
    let expected = fixture["lr_at_step"].as_array().unwrap();
    assert_eq!(expected.len(), 1000);
    for (step, expected) in expected.iter().enumerate() {
        let (got, expected) = (schedule.rate(step as u64), expected.as_f64().unwrap());
        assert!((got - expected).abs() < 1e-15, "step {step}: {got}, expected {expected}");
    }
}

#[test]
fn should_start_at_the_peak_without_a_warmup() {
    let schedule = WarmupCosine { peak: 2.0, last: 1.0, warmup: 0, steps: 10 };
    assert_eq!(schedule.rate(0), 2.0);
    assert!((schedule.rate(5) - 1.5).abs() < 1e-12);
    assert_eq!(schedule.rate(10), 1.0);
}
