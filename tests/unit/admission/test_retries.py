from router.admission.retries import RetryBudget


class TestRetryBudget:
    def test_retries_are_a_share_of_requests(self):
        budget = RetryBudget(share=0.25, floor_per_s=0.0, burst=5.0)
        while budget.withdraw():
            pass
        for _ in range(100):
            budget.deposit(0.0)
        # What is not used does not pile up beyond the burst.
        assert sum(budget.withdraw() for _ in range(100)) == 5

    def test_a_share_is_earned_request_by_request(self):
        budget = RetryBudget(share=0.25, floor_per_s=0.0, burst=1.0)
        assert budget.withdraw()
        earned = []
        for _ in range(4):
            earned.append(budget.withdraw())
            budget.deposit(0.0)
        assert earned == [False] * 4
        assert budget.withdraw()

    def test_time_gives_a_floor_to_quiet_models(self):
        budget = RetryBudget(share=0.0, floor_per_s=2.0, burst=1.0)
        budget.deposit(0.0)
        assert budget.withdraw()
        assert not budget.withdraw()
        budget.deposit(0.5)
        assert budget.withdraw()

    def test_new_parameters_keep_what_is_left_within_the_new_burst(self):
        budget = RetryBudget(share=0.0, floor_per_s=0.0, burst=5.0)
        budget.withdraw()
        budget.reconfigure(0.5, 0.0, 50.0)
        assert budget.tokens == 4.0
        budget.deposit(0.0, requests=2)
        assert budget.tokens == 5.0
        assert budget.as_new().tokens == 50.0
        budget.reconfigure(0.0, 0.0, 0.0)
        assert not budget.withdraw()

    def test_what_was_refused_is_counted(self):
        budget = RetryBudget(share=0.0, floor_per_s=0.0, burst=1.0)
        results = [budget.withdraw() for _ in range(3)]
        assert (results, budget.exhausted) == ([True, False, False], 2)
