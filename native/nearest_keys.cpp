#include "nearest_keys.hpp"
#include "widest.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

namespace steerx {
namespace {

constexpr size_t block = 64; // keys, which stay in the nearest cache for all queries

struct Neighbour {
    float similarity;
    size_t place;
};

bool nearer(const Neighbour &a, const Neighbour &b) {
    return a.similarity > b.similarity || (a.similarity == b.similarity && a.place < b.place);
}

STEERX_WIDEST void products(const int8_t *keys, const float *scales, size_t n, size_t d, const int16_t *query,
                            float step, float *out) {
    for (size_t i = 0; i < n; ++i) {
        const int8_t *key = keys + i * d;
        int32_t sum = 0;
        for (size_t j = 0; j < d; ++j) {
            sum += static_cast<int16_t>(key[j]) * query[j];
        }
        out[i] = static_cast<float>(sum) * scales[i] * step;
    }
}

float length_of(std::span<const float> values) {
    double squares = 0.0;
    for (const float value : values) {
        squares += static_cast<double>(value) * value;
    }
    return std::max(static_cast<float>(std::sqrt(squares)), std::numeric_limits<float>::min());
}

STEERX_WIDEST void add_scaled(const float *values, size_t n, float scale, float *sums) {
    for (size_t i = 0; i < n; ++i) {
        sums[i] += scale * values[i];
    }
}

// A query and its nearest keys so far. They are found by 16 bits of it, as integers are multiplied and
// summed several times as fast as floats; 16 further bits make their similarities exact.
class Query {
  public:
    Query(std::span<const float> values, size_t k) : coarse_(values.size()), fine_(values.size()), k_(k) {
        nearest_.reserve(k);
        double largest = 0.0;
        for (const float value : values) {
            if (!std::isfinite(value)) {
                return;
            }
            largest = std::max<double>(largest, std::abs(value));
        }
        if (largest == 0.0) {
            return;
        }
        // So that the sum of the products fits 32 bits.
        const size_t most = std::min<size_t>(std::numeric_limits<int16_t>::max(),
                                             std::numeric_limits<int32_t>::max() / (128 * values.size()));
        const auto steps = static_cast<double>(most);
        for (size_t j = 0; j < values.size(); ++j) {
            const double value = values[j] / largest * steps;
            const double rounded = std::round(value);
            coarse_[j] = static_cast<int16_t>(rounded);
            fine_[j] = static_cast<int16_t>(std::round((value - rounded) * 2 * steps));
        }
        coarse_step_ = static_cast<float>(largest / steps);
        fine_step_ = static_cast<float>(largest / steps / (2 * steps));
    }

    // Blocks come by place, so a later key that is as near is not taken.
    void look_at(const Keys &keys, size_t first, size_t size) {
        std::array<float, block> near;
        products(keys.values.data() + first * keys.d, keys.scales.data() + first, size, keys.d, coarse_.data(),
                 coarse_step_, near.data());
        for (size_t i = 0; i < size; ++i) {
            if (nearest_.size() == k_) {
                if (near[i] <= nearest_.front().similarity) {
                    continue;
                }
                std::pop_heap(nearest_.begin(), nearest_.end(), nearer);
                nearest_.pop_back();
            }
            nearest_.push_back({near[i], first + i});
            std::push_heap(nearest_.begin(), nearest_.end(), nearer);
        }
    }

    const std::vector<Neighbour> &nearest_first(const Keys &keys) {
        for (Neighbour &each : nearest_) {
            float rest = 0.0f;
            products(keys.values.data() + each.place * keys.d, keys.scales.data() + each.place, 1, keys.d, fine_.data(),
                     fine_step_, &rest);
            each.similarity += rest;
        }
        std::sort(nearest_.begin(), nearest_.end(), nearer);
        return nearest_;
    }

  private:
    std::vector<int16_t> coarse_; // (d,) the query in steps
    std::vector<int16_t> fine_;   // (d,) the rest of it in finer steps
    float coarse_step_ = 0.0f;
    float fine_step_ = 0.0f;
    size_t k_;
    std::vector<Neighbour> nearest_; // a heap, the farthest in front
};

} // namespace

void keys_of(std::span<const float> rows, std::span<const float> mean, std::span<const float> basis,
             std::span<float> keys) {
    constexpr size_t together = 8; // rows, so that the basis is read less often
    const size_t n_embd = mean.size();
    const size_t d = basis.size() / n_embd;
    const size_t n_rows = rows.size() / n_embd;
    std::fill(keys.begin(), keys.end(), 0.0f);
    for (size_t first = 0; first < n_rows; first += together) {
        const size_t end = std::min(first + together, n_rows);
        std::array<float, together> lengths{};
        for (size_t row = first; row < end; ++row) {
            lengths[row - first] = length_of(rows.subspan(row * n_embd, n_embd));
        }
        for (size_t j = 0; j < n_embd; ++j) {
            for (size_t row = first; row < end; ++row) {
                const float centred = rows[row * n_embd + j] / lengths[row - first] - mean[j];
                add_scaled(basis.data() + j * d, d, centred, keys.data() + row * d);
            }
        }
    }
    for (size_t row = 0; row < n_rows; ++row) {
        const std::span<float> key = keys.subspan(row * d, d);
        const float length = length_of(key);
        std::transform(key.begin(), key.end(), key.begin(), [length](float value) { return value / length; });
    }
}

void nearest_keys(const Keys &keys, std::span<const float> queries, size_t k, std::span<int64_t> places,
                  std::span<float> similarities) {
    const size_t n = keys.scales.size();
    const size_t n_queries = k == 0 ? 0 : places.size() / k;
    std::vector<Query> all;
    for (size_t t = 0; t < n_queries; ++t) {
        all.emplace_back(queries.subspan(t * keys.d, keys.d), k);
    }
    for (size_t first = 0; first < n; first += block) {
        for (Query &query : all) {
            query.look_at(keys, first, std::min(block, n - first));
        }
    }
    for (size_t t = 0; t < n_queries; ++t) {
        const std::vector<Neighbour> &nearest = all[t].nearest_first(keys);
        for (size_t i = 0; i < k; ++i) {
            places[t * k + i] = static_cast<int64_t>(nearest[i].place);
            similarities[t * k + i] = nearest[i].similarity;
        }
    }
}

} // namespace steerx
