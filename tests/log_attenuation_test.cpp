/// Stored values through the attenuation table.

#include "kernels/log_attenuation.h"

#include "reference/log_attenuation.h"
#include "support/devices.h"
#include "support/images.h"

namespace cinelumen {
namespace {

class LogAttenuation : public test::DeviceTest {};

TEST_P(LogAttenuation, MatchesTwin) {
  const Stream stream = this->stream();
  Array<float> table(1000);
  for (int i = 0; i < table.size(); ++i) table[i] = -std::log((i + 1) / 1000.0f);
  Array<float> device_table(stream, table.size());
  copy<float>(stream, table, device_table);
  std::mt19937 random(3);
  for (const auto& [height, width] : test::awkward_sizes()) {
    Image<std::uint16_t> stored(height, width);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) stored(y, x) = static_cast<std::uint16_t>(random() % 1100);  // some lie beyond the table
    auto input = test::sub_view<std::uint16_t>(stream, height, width);
    auto output = test::sub_view<float>(stream, height, width);
    copy<std::uint16_t>(stream, stored.view(), input.view);
    log_attenuation(stream, input.view, device_table, output.view);
    test::expect_near(to_host(stream, output.view).view(),
                      reference::log_attenuation(stored.view(), std::vector<float>(table.begin(), table.end())).view(), 0);
    EXPECT_EQ(to_host(stream, output.whole.view())(1, 3), 7) << "wrote outside the view";
  }
}

TEST_P(LogAttenuation, ChecksArguments) {
  const Stream stream = this->stream();
  Image<std::uint16_t> stored(stream, 4, 5);
  Image<float> output(stream, 4, 5), other(stream, 4, 6);
  Array<float> table(stream, 10);
  EXPECT_THROW(log_attenuation(stream, stored, table, other), std::invalid_argument);
  EXPECT_THROW(log_attenuation(stream, stored, ArrayView<const float>{}, output), std::invalid_argument);
}

CINELUMEN_ON_ALL_DEVICES(LogAttenuation);

}  // namespace
}  // namespace cinelumen
